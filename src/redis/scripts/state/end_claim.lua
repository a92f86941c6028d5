-- ARGV: name, token, the standing (empty: the key is free), the standing of an erased answer, content, the time of the
-- request, persons. Answers 1 if the claim was there.
local name, standing, content = ARGV[2], ARGV[4], ARGV[6]
local claim = key('claim', name)
local found = call('HMGET', claim, 'token', 'standing')
if found[1] ~= ARGV[3] then return {now, 0} end
if standing == '' then
  call('DEL', claim)
  call('ZREM', key('claims'), name)
  return {now, 1}
end
if found[2] ~= 'in_flight' and found[2] ~= 'unknown' then return {now, 0} end
if erased_since(8, #ARGV, tonumber(ARGV[7])) then
  standing, content = ARGV[5], ''
end
call('HSET', claim, 'standing', standing)
if content ~= '' then
  call('HSET', claim, 'content', content)
  note_persons(8, #ARGV, name)
end
return {now, 1}
