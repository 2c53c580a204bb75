// The official `@anthropic-ai/sdk`: whole, `for await`, stream helper, tool runner, schema, counts, lists, refusals.
import Anthropic from "@anthropic-ai/sdk";
import { ANSWER, KEY, PERSON, SCHEMA, SUNNY, THOUGHT, TOLD, URL, WEATHER, ask, raises, same } from "./common.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0 });
const base = { model: "claude-sonnet-4-6", max_tokens: 4000 };
const user = (act) => [{ role: "user", content: ask(act) }];
const tools = [{ name: "get_weather", description: "Weather.", input_schema: WEATHER }];
const thinking = { type: "enabled", budget_tokens: 1024 };

const whole = await client.messages.create({ ...base, messages: user("plain") });
same("messages answer", [whole.content[0].text, whole.stop_reason], [ANSWER, "end_turn"]);

const kinds = [];
let text = "", thought = "";
for await (const event of await client.messages.create({ ...base, messages: user("think"), thinking, stream: true })) {
  kinds.push(event.type);
  if (event.delta?.type === "text_delta") text += event.delta.text;
  if (event.delta?.type === "thinking_delta") thought += event.delta.thinking;
}
same("messages stream text apart from thoughts", [text, thought], [ANSWER, THOUGHT]);
same("events begin and end as they must", [kinds[0], kinds.at(-2), kinds.at(-1)], ["message_start", "message_delta", "message_stop"]);

for (const act of ["tool", "dsml", "v31"]) {
  const first = await client.messages.stream({ ...base, messages: user(act), tools, thinking }).finalMessage();
  const use = first.content.find((block) => block.type === "tool_use");
  same(`the stream helper builds the call (${act})`, [use.input, first.stop_reason], [{ city: "Köln" }, "tool_use"]);
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: SUNNY }] };
  const messages = [...user(act), { role: "assistant", content: first.content }, result];
  const next = await client.messages.create({ ...base, messages, tools, thinking });
  same(`and its result is answered (${act})`, next.content.at(-1).text, TOLD);
}

const runner = client.beta.messages.toolRunner({
  ...base,
  messages: user("tool"),
  tools: [{ name: "get_weather", description: "Weather.", input_schema: WEATHER, run: ({ city }) => `sunny in ${city}` }],
});
same("the tool runner runs its tool and goes on", (await runner).content.at(-1).text, TOLD);

const output_config = { format: { type: "json_schema", schema: SCHEMA } };
const parsed = await client.messages.create({ ...base, messages: user("plain"), output_config });
same("a schema is kept to", JSON.parse(parsed.content[0].text), PERSON);

const counted = await client.messages.countTokens({ model: base.model, messages: user("plain") });
same("tokens are counted", counted.input_tokens > 3, true);

const ids = [];
for await (const one of client.models.list({ limit: 5 })) ids.push(one.id);
same("models are listed over pages", [ids.length > 5, new Set(ids).size === ids.length], [true, true]);

await raises("an unknown model is a NotFoundError", client.messages.create({ ...base, model: "deepseek-nope", messages: user("plain") }), Anthropic.NotFoundError);
await raises("a wrong key is an AuthenticationError", client.withOptions({ apiKey: "sk-wrong" }).messages.create({ ...base, messages: user("plain") }), Anthropic.AuthenticationError);
