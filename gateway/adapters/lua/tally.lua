-- Counts all tallies of one request in one step. The same algorithm as gateway/pure/velocity.py, which explains it.
--
-- KEYS[i]: what the i-th window holds, in the order of their times: member, time and weight, each in text; absent when
-- it is empty.
-- ARGV[1]: the most members of a window. Then five for each: member, weight, most, period in microseconds, enforced
-- (1 or 0).
-- Answers two numbers for each: allowed, retry_after (microseconds).

local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]

local function load(key)
  local state = {}
  for member, at, weight in string.gmatch(redis.call('GET', key) or '', '(%S+) (%d+) (%d+)') do
    state[#state + 1] = {member = member, time = tonumber(at), weight = tonumber(weight)}
  end
  return state
end

local function save(key, state, now, period)
  local texts = {}
  for i, entry in ipairs(state) do
    texts[i] = string.format('%s %.0f %.0f', entry.member, entry.time, entry.weight)
  end
  local left = state[#state].time + period - now
  redis.call('SET', key, table.concat(texts, ' '), 'PX', string.format('%.0f', math.ceil(left / 1000)))
end

local tallies, passes = {}, true
for i, key in ipairs(KEYS) do
  local at = 5 * (i - 1) + 1
  local weight, most, period = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local state, member, now = load(key), ARGV[at + 1], time
  if #state > 0 then now = math.max(now, state[#state].time) end
  local sums = member == ''
  if sums then
    member = string.format('%.0f', math.floor(now / math.max(1, math.floor(period / tonumber(ARGV[1])))))
  end
  local kept, total, before = {}, 0, 0
  for _, entry in ipairs(state) do
    if now - entry.time < period then
      total = total + entry.weight
      if entry.member == member then before = entry.weight end
      kept[#kept + 1] = entry
    end
  end
  local added = weight
  if not sums and before > 0 then added = 0 end
  local tally = {state = kept, now = now, period = period, member = member, weight = before + added, retry_after = 0}
  local over = total + added - most
  tally.allowed = over <= 0
  if not tally.allowed then
    tally.retry_after = period
    for _, entry in ipairs(kept) do
      over = over - entry.weight
      if over <= 0 then
        tally.retry_after = entry.time + period - now
        break
      end
    end
    if ARGV[at + 5] == '1' then passes = false end
  end
  tallies[i] = tally
end

local answer = {}
for i, tally in ipairs(tallies) do
  if passes and tally.allowed then
    local state = {}
    for _, entry in ipairs(tally.state) do
      if entry.member ~= tally.member then state[#state + 1] = entry end
    end
    state[#state + 1] = {member = tally.member, time = tally.now, weight = tally.weight}
    save(KEYS[i], state, tally.now, tally.period)
  end
  answer[#answer + 1] = tally.allowed and 1 or 0
  answer[#answer + 1] = tally.retry_after
end
return answer
