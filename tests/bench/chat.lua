-- One chat call, over and over; at the end a line that the benchmark reads.
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers[os.getenv("BENCH_HEADER")] = os.getenv("BENCH_CREDENTIAL")
local file = assert(io.open(os.getenv("BENCH_BODY")))
wrk.body = file:read("*a")
file:close()

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("bench calls=%d us=%d p99_us=%d bad_status=%d broken=%d\n",
    summary.requests, summary.duration, latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
