-- wrk's script: sends the steps of a plan (a Lua file, the first argument), in their order, again and again.
-- A step: {method, path, count, body, headers, span}. In the path, %d is an index below count (random, or with a body in
-- turn), or where count is 0 a name never used before: folder, thread, number. A body is its number of bytes, each
-- body another. With span, each request asks for a random range of 64 KiB below so many bytes. wrk itself counts what
-- comes back; the caller compares bytes.

local plan, position, number, threads, stamp = {}, 0, 0, 0, 0
id = 0 -- global, for setup() sets it from outside

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local function random_range(span)
  local first = math.random(0, span - 65536)
  return string.format("bytes=%d-%d", first, first + 65535)
end

local function prepared(step)
  local ready = {}
  for index = 0, step.count - 1 do
    ready[index] = wrk.format(step.method, string.format(step.path, index), step.headers)
  end
  return ready
end

function init(arguments)
  plan = dofile(arguments[1])
  stamp = os.time() % 900000 + 100000
  math.randomseed(os.time() + id)
  for _, step in ipairs(plan) do
    step.headers = step.headers or {}
    if step.body then
      step.filling = string.rep("x", step.body - 16)
    elseif not step.span then
      step.ready = prepared(step)
    end
  end
end

function request()
  position = position % #plan + 1
  local step = plan[position]
  if step.ready then
    return step.ready[math.random(0, step.count - 1)]
  end
  number = number + 1
  if step.span then
    step.headers.Range = random_range(step.span)
    return wrk.format(step.method, step.path, step.headers)
  end
  local path
  if step.count > 0 then
    -- No two requests at the same time for one path: some servers refuse that. There are two threads at most.
    path = string.format(step.path, (number * 2 + id) % step.count)
  else
    path = string.format(step.path, number % 16, id, number)
  end
  local body = string.format("%02d%08d%d", id, number, stamp) .. step.filling
  return wrk.format(step.method, path, step.headers, body)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"bad_status":%d,"broken":%d}\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
