-- ARGV: name, token, request, holder, the standing of a new claim, the milliseconds for which a key is kept. Claims an
-- idempotency key and answers nothing, or answers the key as it is: token, request, holder, standing, content, age.
local name = ARGV[2]
local claim = key('claim', name)
local found = call('HMGET', claim, 'token', 'request', 'holder', 'standing', 'content', 'at')
local age = now - number(found[6])
-- The same step runs again. It writes too, so that WAIT covers it.
if found[1] == ARGV[3] then call('HSET', claim, 'token', ARGV[3]) end
if found[1] and age < tonumber(ARGV[7]) then
  return {now, {found[1], found[2], found[3], found[4], found[5] or '', string.format('%.0f', math.max(age, 0))}}
end
call('DEL', claim)
call('HSET', claim, 'token', ARGV[3], 'request', ARGV[4], 'holder', ARGV[5], 'standing', ARGV[6], 'at', now)
call('ZADD', key('claims'), now, name)
return {now, {}}
