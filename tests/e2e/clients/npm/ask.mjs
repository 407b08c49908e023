// Asks as the users of OpenAI's npm package do. What to ask comes as JSON from stdin, and what each
// step got with each model goes as JSON to stdout, for the test to judge.

import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const REST_MS = 10_000;

const { models, ...asked } = await json(process.stdin);
const client = new OpenAI({ baseURL: `${asked.url}/v1`, apiKey: "none", maxRetries: 0 });
const completions = client.chat.completions;

const about = (model, content) => ({
  model,
  messages: [{ role: "user", content }],
  temperature: 0,
});

async function chat(model) {
  const answer = await completions.create(about(model, asked.question));
  const [choice] = answer.choices;
  return {
    model: answer.model,
    content: choice.message.content,
    finish_reason: choice.finish_reason,
    prompt_tokens: answer.usage.prompt_tokens,
  };
}

async function stream(model) {
  const chunks = await completions.create({
    ...about(model, asked.question),
    stream: true,
    stream_options: { include_usage: true },
  });
  const told = { pieces: [], finish_reason: null, prompt_tokens: null };
  for await (const chunk of chunks) {
    for (const choice of chunk.choices) {
      if (choice.delta.content) told.pieces.push(choice.delta.content);
      told.finish_reason = choice.finish_reason ?? told.finish_reason;
    }
    told.prompt_tokens = chunk.usage?.prompt_tokens ?? told.prompt_tokens;
  }
  return told;
}

// The package itself calls the function, and sends its result back.
async function tools(model, { stream }) {
  const calls = [];
  const weather = (given) => {
    calls.push({ name: asked.tool.function.name, arguments: given });
    return asked.tool_result;
  };
  const runner = completions.runTools({
    ...about(model, asked.tool_question),
    tools: [{ type: "function", function: { ...asked.tool.function, function: weather } }],
    stream,
  });
  const content = await runner.finalContent();
  const [call, ...others] = calls;
  if (others.length > 0) throw new Error(`Called ${calls.length} times.`);
  return { ...call, content };
}

async function form(model) {
  const Size = z.object({ size: z.enum(["small", "big"]) });
  const answer = await completions.parse({
    ...about(model, asked.question),
    response_format: zodResponseFormat(Size, "size"),
  });
  return answer.choices[0].message.parsed;
}

async function vectors(model) {
  const found = await client.embeddings.create({ model: models[model], input: asked.texts });
  return found.data.map((item) => Array.from(item.embedding));
}

async function errors(model) {
  const one = about(model, asked.question);
  const long = about(model, asked.too_long);
  return {
    unknown_model: await refusal(completions.create({ ...one, model: "absent" })),
    wrong_field: await refusal(completions.create({ ...one, max_tokens: -5 })),
    too_long: await refusal(completions.create(long)),
    too_long_stream: await refusal(completions.create({ ...long, stream: true })),
  };
}

async function refusal(answer) {
  try {
    await answer;
  } catch (error) {
    return described(error);
  }
  throw new Error("It was answered.");
}

function described(error) {
  const kinds = [];
  for (let kind = error.constructor; kind.name; kind = Object.getPrototypeOf(kind)) {
    kinds.push(kind.name);
  }
  return { kinds, status: error.status ?? null, message: error.message, code: error.code ?? null };
}

async function cancel(model) {
  const song = about(model, asked.endless_question);
  let piece = null;
  for await (const chunk of await completions.create({ ...song, stream: true })) {
    piece = chunk.choices[0]?.delta.content;
    if (piece) break;
  }
  const left = [await leasesLeft(model)];
  const timeout = await refusal(
    completions.create(song, { timeout: asked.timeout_seconds * 1000 }),
  );
  left.push(await leasesLeft(model));
  return { piece, timeout, leases: left, content: (await chat(model)).content };
}

// How many requests of the model go on although their client has left them.
async function leasesLeft(model) {
  const deadline = performance.now() + REST_MS;
  for (;;) {
    const status = await (await fetch(`${asked.url}/router/status`)).json();
    const left = status.instances
      .filter((one) => one.model === model)
      .reduce((sum, one) => sum + one.leases, 0);
    if (left === 0 || performance.now() > deadline) return left;
    await sleep(50);
  }
}

const STEPS = {
  chat,
  stream,
  tools: (model) => tools(model, { stream: false }),
  streamed_tools: (model) => tools(model, { stream: true }),
  form,
  vectors,
  errors,
  cancel,
};

const told = {};
for (const model of Object.keys(models)) {
  told[model] = {};
  for (const [name, step] of Object.entries(STEPS)) {
    told[model][name] = await step(model).catch((error) => ({ error: described(error) }));
  }
}
process.stdout.write(JSON.stringify(told));
