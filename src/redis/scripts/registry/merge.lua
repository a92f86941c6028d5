-- Merges rows into the shared copy of the registry.
-- KEYS: number of the last change, hash of rows. ARGV: 1 if a change gets a number, else 0; then field, rule and value
-- of each row. Rules: once (the first value stays), least and most (numbers). Answers the number of rows that changed.
local call = redis.call
local changed = 0
for at = 2, #ARGV, 3 do
  local field, rule, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local before = call('HGET', KEYS[2], field)
  local set = not before
  if before and rule ~= 'once' then
    local old, new = tonumber(before), tonumber(value)
    set = not old or (rule == 'least' and new < old) or (rule == 'most' and new > old)
  end
  if set then
    call('HSET', KEYS[2], field, value)
    changed = changed + 1
  end
end
if changed > 0 and ARGV[1] == '1' then
  -- The number follows the clock, so that it never comes back after Redis has lost its data.
  local clock = call('TIME')
  local now = clock[1] * 1000000 + clock[2]
  local last = tonumber(call('GET', KEYS[1]) or '0') or 0
  call('SET', KEYS[1], string.format('%.0f', math.max(last + 1, now)))
end
return changed
