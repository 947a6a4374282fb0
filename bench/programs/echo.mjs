// Returns the payload of a job. With the argument "lines" it stays: one line of JSON per job.
let read = '';
for await (const chunk of process.stdin.setEncoding('utf8')) {
  read += chunk;
  if (process.argv.includes('lines')) {
    const lines = read.split('\n');
    read = lines.pop();
    for (const line of lines) {
      process.stdout.write(`${JSON.stringify({ result: JSON.parse(line).payload })}\n`);
    }
  }
}
if (!process.argv.includes('lines')) {
  process.stdout.write(JSON.stringify(JSON.parse(read)));
}
