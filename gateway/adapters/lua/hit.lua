-- Decides all hits of one request in one step. The same algorithm as gateway/pure/gcra.py, which explains it.
--
-- KEYS[i]: the i-th limit's state, whole numbers in text; absent when the limit is whole.
-- ARGV, five for each: strategy, amount, period in microseconds, burst, enforced (1 or 0).
-- Answers four numbers for each: allowed, remaining, reset_after, retry_after (microseconds).

local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]

local function up(dividend, divisor)
  return math.ceil(dividend / divisor)
end

local strategies = {
  gcra = {
    settle = function(state, limit, now)
      local level = state[1] - (now - state[2]) * limit.amount
      if level > 0 then return {level, now} end
      return {}
    end,
    count = function(state, limit, now)
      return {(state[1] or 0) + limit.period, now}
    end,
    measure = function(state, limit, now)
      local level = state[1] or 0
      local space = limit.burst * limit.period - level
      local remaining = math.max(0, math.floor(space / limit.period))
      return remaining, up(level, limit.amount), up(limit.period - space, limit.amount)
    end,
  },
  fixed_window = {
    settle = function(state, limit, now)
      if now - state[2] < limit.period then return state end
      return {}
    end,
    count = function(state, limit, now)
      return {(state[1] or 0) + 1, state[2] or now}
    end,
    measure = function(state, limit, now)
      if #state == 0 then return limit.amount, 0, 0 end
      local reset = state[2] + limit.period - now
      return math.max(0, limit.amount - state[1]), reset, reset
    end,
  },
  sliding_window_counter = {
    settle = function(state, limit, now)
      local previous, current, start = state[1], state[2], state[3]
      local windows = math.floor((now - start) / limit.period)
      if windows == 1 then
        previous, current, start = current, 0, start + limit.period
      end
      if windows < 2 and previous + current > 0 then return {previous, current, start} end
      return {}
    end,
    count = function(state, limit, now)
      return {state[1] or 0, (state[2] or 0) + 1, state[3] or now}
    end,
    measure = function(state, limit, now)
      if #state == 0 then return limit.amount, 0, 0 end
      local previous, current, left = state[1], state[2], state[3] + limit.period - now
      local remaining = math.max(0, limit.amount - current - math.floor(previous * left / limit.period))
      local reset, retry = left, 0
      if current > 0 then reset = left + limit.period end
      if remaining == 0 and current < limit.amount then
        retry = left - up((limit.amount - current) * limit.period, previous) + 1
      elseif remaining == 0 then
        retry = left + limit.period - up(limit.amount * limit.period, current) + 1
      end
      return remaining, reset, retry
    end,
  },
  moving_window = {
    settle = function(state, limit, now)
      local kept = {}
      for _, seen in ipairs(state) do
        if now - seen < limit.period then kept[#kept + 1] = seen end
      end
      return kept
    end,
    count = function(state, limit, now)
      state[#state + 1] = now
      return state
    end,
    measure = function(state, limit, now)
      if #state == 0 then return limit.amount, 0, 0 end
      local remaining = math.max(0, limit.amount - #state)
      local oldest = state[math.max(1, #state - limit.amount + 1)]
      return remaining, state[#state] + limit.period - now, oldest + limit.period - now
    end,
  },
}

local function load(key)
  local state = {}
  for number in string.gmatch(redis.call('GET', key) or '', '%d+') do
    state[#state + 1] = tonumber(number)
  end
  return state
end

local function save(key, state, reset_after)
  local numbers = {}
  for i, number in ipairs(state) do numbers[i] = string.format('%.0f', number) end
  redis.call('SET', key, table.concat(numbers, ' '), 'PX', string.format('%.0f', up(reset_after, 1000)))
end

local hits, passes = {}, true
for i, key in ipairs(KEYS) do
  local at = 5 * (i - 1)
  local hit = {
    strategy = strategies[ARGV[at + 1]],
    limit = {amount = tonumber(ARGV[at + 2]), period = tonumber(ARGV[at + 3]), burst = tonumber(ARGV[at + 4])},
    state = load(key),
    now = time,
  }
  if #hit.state > 0 then
    hit.now = math.max(time, hit.state[#hit.state])
    hit.state = hit.strategy.settle(hit.state, hit.limit, hit.now)
  end
  hit.allowed = hit.strategy.measure(hit.state, hit.limit, hit.now) > 0
  if ARGV[at + 5] == '1' and not hit.allowed then passes = false end
  hits[i] = hit
end

local answer = {}
for i, hit in ipairs(hits) do
  local counted = passes and hit.allowed
  if counted then hit.state = hit.strategy.count(hit.state, hit.limit, hit.now) end
  local remaining, reset_after, retry_after = hit.strategy.measure(hit.state, hit.limit, hit.now)
  if counted then save(KEYS[i], hit.state, reset_after) end
  if remaining > 0 then retry_after = 0 end
  answer[#answer + 1] = hit.allowed and 1 or 0
  answer[#answer + 1] = remaining
  answer[#answer + 1] = reset_after
  answer[#answer + 1] = retry_after
end
return answer
