-- Chat calls that are all the same (BENCH_STEP 0) or all different (1). Both are made in the same way, so
-- that they cost the load generator the same.
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("first", threads * 1e9)
end

local file = assert(io.open(os.getenv("BENCH_BODY")))
local rest = file:read("*a"):sub(2)
file:close()
local step = tonumber(os.getenv("BENCH_STEP"))
local headers = { ["content-type"] = "application/json" }
headers[os.getenv("BENCH_HEADER")] = os.getenv("BENCH_CREDENTIAL")
local seed

function init()
  seed = step == 0 and 1 or first
end

function request()
  seed = seed + step
  return wrk.format("POST", nil, headers, string.format('{"seed":%d,%s', seed, rest))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("bench calls=%d us=%d p99_us=%d bad_status=%d broken=%d\n",
    summary.requests, summary.duration, latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
