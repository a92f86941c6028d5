-- Lists an account's endpoints that refuse calls. KEYS: as in backoff.lua. Answers {endpoint, step, microseconds
-- left, …}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local flat, list = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #flat, 2 do
  local step, till = string.match(flat[i + 1], '^(%d+):(%d+):')
  if step then
    list[#list + 1] = flat[i]
    list[#list + 1] = step
    list[#list + 1] = string.format('%.0f', math.max(0, till - now))
  end
end
return list
