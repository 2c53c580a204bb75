"""What setup.cfg cannot say: the console's files lie packed in the wheel, beside the plain ones."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))
from ds2d.web.assets import pack


class Build(build_py):
    """The usual build, and the packing."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            pack(Path(self.build_lib, "ds2d", "web", "console"))


setup(cmdclass={"build_py": Build})
