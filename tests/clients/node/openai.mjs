// The official `openai` package: chat and Responses, whole and with `for await`, tools, schemas, refusals.
import OpenAI from "openai";
import { ANSWER, KEY, PERSON, SCHEMA, SUNNY, THOUGHT, TOLD, URL, WEATHER, ask, raises, same } from "./common.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0 });
const model = "deepseek-chat";
const user = (act) => [{ role: "user", content: ask(act) }];
const tools = [{ type: "function", function: { name: "get_weather", parameters: WEATHER } }];

const whole = await client.chat.completions.create({ model, messages: user("plain") });
same("chat answers", whole.choices[0].message.content, ANSWER);

let text = "", thought = "", last;
for await (const chunk of await client.chat.completions.create({ model, messages: user("think"), stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
  thought += chunk.choices[0]?.delta?.reasoning_content ?? "";
  last = chunk.choices[0]?.finish_reason ?? last;
}
same("chat streams text apart from thoughts", [text, thought, last], [ANSWER, THOUGHT, "stop"]);

for (const act of ["tool", "dsml", "v31"]) {
  const runner = client.chat.completions.runTools({
    model,
    stream: true,
    messages: user(act),
    tools: [{ type: "function", function: { ...tools[0].function, parse: JSON.parse, function: ({ city }) => `sunny in ${city}` } }],
  });
  same(`runTools runs its function and goes on (${act})`, await runner.finalContent(), TOLD);
}

const format = { type: "json_schema", json_schema: { name: "person", schema: SCHEMA, strict: true } };
const parsed = await client.chat.completions.parse({ model, messages: user("plain"), response_format: format });
same("a schema is kept to", JSON.parse(parsed.choices[0].message.content), PERSON);

const made = await client.responses.create({ model, input: ask("plain") });
same("responses answer", made.output_text, ANSWER);

const kinds = [], delta = [];
for await (const event of await client.responses.create({ model, input: ask("think"), stream: true })) {
  kinds.push(event.type);
  if (event.type === "response.output_text.delta") delta.push(event.delta);
}
same("responses stream", [delta.join(""), kinds[0], kinds.at(-1)], [ANSWER, "response.created", "response.completed"]);

for (const act of ["tool", "dsml", "v31"]) {
  const declared = [{ type: "function", name: "get_weather", parameters: WEATHER, strict: false }];
  const first = await client.responses.stream({ model, input: ask(act), tools: declared }).finalResponse();
  const call = first.output.find((item) => item.type === "function_call");
  same(`responses call (${act})`, JSON.parse(call.arguments), { city: "Köln" });
  const output = [{ type: "function_call_output", call_id: call.call_id, output: SUNNY }];
  const next = await client.responses.create({ model, input: output, tools: declared, previous_response_id: first.id });
  same(`responses go on after a call (${act})`, next.output_text, TOLD);
}

const run = await client.responses.create({ model, input: ask("plain"), background: true });
let finished = "";
for await (const event of await client.responses.retrieve(run.id, { stream: true })) {
  if (event.type === "response.completed") finished = event.response.status;
}
same("background work is followed", finished, "completed");

const names = [];
for await (const one of client.models.list()) names.push(one.id);
same("models are listed", names.includes(model), true);

await raises("an unknown model is a NotFoundError", client.chat.completions.create({ model: "deepseek-nope", messages: user("plain") }), OpenAI.NotFoundError);
await raises("a wrong key is an AuthenticationError", client.withOptions({ apiKey: "sk-wrong" }).responses.create({ model, input: "x" }), OpenAI.AuthenticationError);
