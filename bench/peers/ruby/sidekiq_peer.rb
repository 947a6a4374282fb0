# Sidekiq: the file that `sidekiq -r` loads; run as a program, the producer. ../peer.rs describes both.
require "json"
require "sidekiq"

# Otherwise the Redis client logs a warning for every job of Sidekiq 6.4.
Redis.sadd_returns_boolean = false
redis = { url: ENV.fetch("PEERS_REDIS") }
Sidekiq.configure_server { |config| config.redis = redis }
Sidekiq.configure_client { |config| config.redis = redis }
Sidekiq.logger.level = Logger::WARN

def now
  Process.clock_gettime(Process::CLOCK_MONOTONIC, :microsecond)
end

# The open-source Sidekiq removes a job from Redis before the job runs (BRPOP), so a crash loses running jobs. It has no
# other mode.
class NoOp
  include Sidekiq::Worker

  REPORT = ENV["PEERS_REPORT"] && File.open(ENV["PEERS_REPORT"], File::WRONLY | File::APPEND)

  def perform(payload)
    REPORT.syswrite("#{now - payload["sent"]}\n") if payload["sent"]
  end
end

if $PROGRAM_NAME == __FILE__
  payload = JSON.parse(ENV.fetch("PEERS_PAYLOAD"))
  $stdout.sync = true
  $stdin.each_line do |line|
    way, *numbers = line.split
    jobs, size = numbers.map(&:to_i)
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    case way
    when "one" then jobs.times { NoOp.perform_async(payload) }
    when "bulk"
      (0...jobs).step(size) do |first|
        Sidekiq::Client.push_bulk("class" => NoOp, "args" => [[payload]] * [size, jobs - first].min)
      end
    when "lone" then NoOp.perform_async({ "sent" => now, **payload })
    else raise way
    end
    puts Process.clock_gettime(Process::CLOCK_MONOTONIC) - start
  end
end
