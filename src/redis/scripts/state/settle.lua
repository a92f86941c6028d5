-- ARGV: name, the number of the hand-out, verdict (`wait`, `unowned`, `deliver`, or `more`: deliver, and the rest of the
-- deliveries follows), how long what is kept or unowned stays, until when it waits, deliveries. Answers how many it made;
-- -1 if the callback is in nobody's or in other hands.
local name, turn, verdict = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local callback = call('HMGET', key('callback', name), 'standing', 'turn', 'record', 'received', 'fleeting', 'again')
if callback[1] ~= 'waiting' or number(callback[2]) ~= turn then return {now, -1} end
local record, made = callback[3], 0
local fleeting = callback[5] == '1'
if verdict == 'deliver' or verdict == 'more' then
  local gone = fleeting or is_erased(owners(record))
  for at = 7, #ARGV, 6 do
    made = made + insert_delivery(at, record, callback[4], gone)
  end
end
if verdict == 'more' then return {now, made} end
if touched(record) > turn or number(callback[6]) > turn then
  call('ZREM', key('callbacks:holding'), name)
  call('HSET', key('callback', name), 'due', now)
  call('ZADD', key('callbacks:waiting'), now, name)
elseif verdict == 'wait' then
  call('ZREM', key('callbacks:holding'), name)
  call('HSET', key('callback', name), 'due', ARGV[6])
  call('ZADD', key('callbacks:waiting'), ARGV[6], name)
elseif verdict == 'deliver' then
  move_callback(name, record, 'waiting', 'kept', now + tonumber(ARGV[5]))
else
  -- What must not be kept is not kept for operators either.
  move_callback(name, record, 'waiting', fleeting and 'known' or 'unowned', now + tonumber(ARGV[5]))
end
return {now, made}
