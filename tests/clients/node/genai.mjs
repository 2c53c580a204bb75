// The official `@google/genai`: whole, `for await`, chat, functions, schema, counts, lists, refusals, on both versions.
import { ApiError, GoogleGenAI } from "@google/genai";
import { ANSWER, KEY, PERSON, SCHEMA, SUNNY, THOUGHT, TOLD, URL, WEATHER, ask, raises, same } from "./common.mjs";

const model = "gemini-2.5-flash";
const tools = [{ functionDeclarations: [{ name: "get_weather", parametersJsonSchema: WEATHER }] }];
const connect = (apiVersion, apiKey = KEY) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: URL, apiVersion } });

for (const version of ["v1", "v1beta"]) {
  const client = connect(version);
  const whole = await client.models.generateContent({ model, contents: ask("plain") });
  same(`${version}: answers`, whole.text, ANSWER);

  let text = "", thought = "", end;
  const config = { thinkingConfig: { includeThoughts: true } };
  for await (const chunk of await client.models.generateContentStream({ model, contents: ask("think"), config })) {
    for (const part of chunk.candidates?.[0]?.content?.parts ?? []) {
      if (part.thought) thought += part.text;
      else text += part.text ?? "";
    }
    end = chunk.candidates?.[0]?.finishReason ?? end;
  }
  same(`${version}: streams text apart from thoughts`, [text, thought, end], [ANSWER, THOUGHT, "STOP"]);

  const names = [];
  for await (const one of await client.models.list({ config: { pageSize: 2 } })) names.push(one.name);
  same(`${version}: models are listed over pages`, [names.length > 2, names.includes("models/deepseek-chat")], [true, true]);
  same(`${version}: one model`, (await client.models.get({ model: "deepseek-chat" })).name, "models/deepseek-chat");
}

const client = connect("v1beta");
const chat = client.chats.create({ model });
await chat.sendMessage({ message: ask("plain") });
let again = "";
for await (const chunk of await chat.sendMessageStream({ message: ask("plain") })) again += chunk.text ?? "";
same("a chat goes on", again, ANSWER);

for (const act of ["tool", "dsml", "v31"]) {
  const talk = client.chats.create({ model, config: { tools } });
  const calls = [];
  for await (const chunk of await talk.sendMessageStream({ message: ask(act) })) calls.push(...(chunk.functionCalls ?? []));
  same(`calls (${act})`, [calls.length, calls[0].name, calls[0].args], [1, "get_weather", { city: "Köln" }]);
  const functionResponse = { id: calls[0].id, name: "get_weather", response: { output: SUNNY } };
  same(`and the result is answered (${act})`, (await talk.sendMessage({ message: { functionResponse } })).text, TOLD);
}

const config = { responseMimeType: "application/json", responseJsonSchema: SCHEMA };
const parsed = await client.models.generateContent({ model, contents: ask("plain"), config });
same("a schema is kept to", JSON.parse(parsed.text), PERSON);
same("tokens are counted", (await client.models.countTokens({ model, contents: ask("plain") })).totalTokens > 3, true);

const refused = (status) => (error) => error instanceof ApiError && error.status === status;
await raises("an unknown model is 404", client.models.generateContent({ model: "deepseek-nope", contents: "x" }), refused(404));
await raises("a wrong key is 401", connect("v1beta", "sk-wrong").models.generateContent({ model, contents: "x" }), refused(401));
