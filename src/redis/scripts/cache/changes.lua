-- Prepares the shared keys of changes: epochs, number, list. A value of another type is another program's: it is
-- removed, and counts as lost. A new number starts at the time in milliseconds: changes never come that fast, so no
-- number is given twice.
local kinds = {'hash', 'string', 'zset'}
for at, kind in ipairs(kinds) do
  local is = redis.call('TYPE', KEYS[at]).ok
  if is ~= kind and is ~= 'none' then redis.call('DEL', KEYS[at]) end
end
if not tonumber(redis.call('GET', KEYS[2]) or '') then
  local now = redis.call('TIME')
  redis.call('SET', KEYS[2], now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
end
