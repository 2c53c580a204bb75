// What the scripts share: where the daemon is, what its model says to which prompt (acting.py), and how a check is told.
import assert from "node:assert/strict";

export const URL = process.env.DS2D_URL;
export const KEY = process.env.DS2D_KEY;
export const ANSWER = "The plain answer is 4711.";
export const THOUGHT = "Secret thought number 815.";
export const SUNNY = "sunny in Köln";
export const PERSON = { name: "Ann", age: 40 };
export const SCHEMA = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};
export const WEATHER = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const TOLD = `The tool said: ${SUNNY}`;

export const ask = (act) => `Do what I ask. [[act:${act}]]`;

export function same(what, found, wanted) {
  assert.deepEqual(found, wanted, what);
  console.log(`ok: ${what}`);
}

export async function raises(what, promise, check) {
  await assert.rejects(promise, check, what);
  console.log(`ok: ${what}`);
}
