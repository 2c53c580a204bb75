// The AI SDK over three of its providers: text, stream, reasoning, a tool loop, an object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { ANSWER, KEY, PERSON, SCHEMA, THOUGHT, TOLD, URL, WEATHER, ask, same } from "./common.mjs";

const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey: KEY });
const anthropic = createAnthropic({ baseURL: `${URL}/v1`, apiKey: KEY });
const models = {
  chat: openai.chat("deepseek-chat"),
  responses: openai.responses("deepseek-chat"),
  anthropic: anthropic("claude-opus-4-6"),
};
const shared = { maxRetries: 0, temperature: undefined };
const get_weather = tool({ inputSchema: jsonSchema(WEATHER), execute: async ({ city }) => `sunny in ${city}` });

for (const [name, model] of Object.entries(models)) {
  const whole = await generateText({ ...shared, model, prompt: ask("plain") });
  same(`${name}: answers`, [whole.text, whole.finishReason], [ANSWER, "stop"]);

  const stream = streamText({ ...shared, model, prompt: ask("think"), onError: ({ error }) => { throw error; } });
  let text = "", thought = "";
  for await (const part of stream.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "reasoning-delta") thought += part.text;
  }
  same(`${name}: streams`, [text, await stream.finishReason], [ANSWER, "stop"]);
  if (name !== "chat") same(`${name}: streams its reasoning apart`, thought, THOUGHT); // the chat provider does not read it

  for (const act of ["tool", "dsml", "v31"]) {
    const loop = streamText({ ...shared, model, prompt: ask(act), tools: { get_weather }, stopWhen: stepCountIs(4) });
    same(`${name}: runs its tool and goes on (${act})`, [await loop.text, (await loop.steps).length], [TOLD, 2]);
    const once = await generateText({ ...shared, model, prompt: ask(act), tools: { get_weather }, stopWhen: stepCountIs(4) });
    same(`${name}: the same in one piece (${act})`, [once.text, once.steps.length], [TOLD, 2]);
  }

  const made = await generateText({ ...shared, model, prompt: ask("plain"), output: Output.object({ schema: jsonSchema(SCHEMA) }) });
  same(`${name}: makes an object`, made.output, PERSON);
}
