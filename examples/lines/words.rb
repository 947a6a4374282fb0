#!/usr/bin/env ruby
# Counts the words of a text: {"text": "a b a"} gives {"a": 2, "b": 1}. A program that stays (protocol = "lines").
require "json"

# An error after which the job is not tried again.
class Permanent < StandardError; end

# Calls the block for one job after the other. Its value is the result of the job; an error fails the attempt.
def threadq_lines
  out = $stdout.dup
  out.sync = true
  $stdout.reopen($stderr) # So that puts(..) is no answer.
  say = ->(line) { out.write(JSON.generate(line) << "\n") }
  $stdin.set_encoding("UTF-8").each_line do |line|
    say.(result: yield(JSON.parse(line), say))
  rescue StandardError => error
    say.(error: error.message, permanent: error.is_a?(Permanent))
  end
end

threadq_lines do |job, say|
  text = job["payload"]["text"]
  raise Permanent, "the payload has no text" unless text.is_a?(String)

  say.(progress: 0.5, message: "attempt #{job["attempt"]}")
  text.split.tally
end
