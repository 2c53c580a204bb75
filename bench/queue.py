"""What a decision of the account queue costs while many wait: medians in microseconds, for a release with its
grant and for an arrival. Ten models wait, which is what a grant looks through; how many wait must not matter.

    .venv/bin/python -m bench.queue
"""

from __future__ import annotations

import asyncio
import statistics
import time

from ds2d.config.schema import Runtime
from ds2d.core.settings import UpstreamSpec
from ds2d.state.accounts import AccountQueue, Want

WAITING = (100, 1_000, 10_000)
TIMES = 300


async def decisions(waiting: int) -> tuple[float, float]:
    """Seconds of one grant and of one arrival behind so many."""
    queue = AccountQueue(Runtime(account_max_queue=20_000))
    queue.apply([UpstreamSpec(name="up", base_url="http://127.0.0.1:1", max_inflight=1)], (), queue.limits)  # type: ignore[arg-type]
    leases = [await queue.acquire(Want(("up",), "m", caller="c0"), 60)]
    tasks = []
    for number in range(waiting):
        want = Want(("up",), f"m{number % 10}", caller=f"c{number % 50}")
        tasks.append(asyncio.create_task(queue.acquire(want, 600)))
    await asyncio.sleep(0)
    spent = []
    for _ in range(min(TIMES, waiting - 1)):
        began = time.perf_counter()
        queue.release(leases.pop())
        spent.append(time.perf_counter() - began)
        done, _pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            tasks.remove(task)
            leases.append(task.result())
    late, arrivals = [], []
    for _ in range(TIMES):
        began = time.perf_counter()
        late.append(asyncio.create_task(queue.acquire(Want(("up",), "m1", caller="late"), 600)))
        await asyncio.sleep(0)
        arrivals.append(time.perf_counter() - began)
    for task in [*tasks, *late]:
        task.cancel()
    await asyncio.gather(*tasks, *late, return_exceptions=True)
    return statistics.median(spent), statistics.median(arrivals)


def main() -> None:
    """Print both for each length."""
    print(f"{'waiting':>8} {'grant us':>9} {'arrival us':>11}")
    for waiting in WAITING:
        grant, arrival = asyncio.run(decisions(waiting))
        print(f"{waiting:8} {grant * 1e6:9.1f} {arrival * 1e6:11.1f}")


if __name__ == "__main__":
    main()
