#!/usr/bin/env node
// Counts the words of a text: {"text": "a b a"} gives {"a": 2, "b": 1}. A program that stays (protocol = "lines").

/** Calls `handle` for one job after the other. Its value is the result of the job; an error fails the attempt. */
async function threadqLines(handle) {
  const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
  console.log = console.error; // So that console.log(..) is no answer.
  let read = '';
  // Not by `readline`, which also splits at characters that JSON may contain.
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    const lines = (read + chunk).split('\n');
    read = lines.pop();
    for (const line of lines) {
      try {
        say({ result: (await handle(JSON.parse(line), say)) ?? null });
      } catch (error) {
        say({ error: String(error.message ?? error), permanent: error.permanent ?? false });
      }
    }
  }
}

await threadqLines(async (job, say) => {
  const { text } = job.payload;
  if (typeof text !== 'string') {
    throw Object.assign(new Error('the payload has no text'), { permanent: true });
  }
  say({ progress: 0.5, message: `attempt ${job.attempt}` });
  const words = new Map();
  for (const word of text.split(/\s+/).filter(Boolean)) {
    words.set(word, (words.get(word) ?? 0) + 1);
  }
  return Object.fromEntries(words);
});
