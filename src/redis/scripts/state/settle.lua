-- ARGV: name, the fencing token, verdict (`wait`, `unowned`, `deliver`, or `more`: deliver, with more deliveries to
-- follow), the retention of a kept or unowned callback, the end of its wait, the bounds of an outbox (deliveries,
-- bytes), deliveries. Answers the number of queued deliveries, or -1 if the callback was claimed by another or is gone;
-- and the teams of the deliveries that became dead letters at once, because their outbox is full.
local name, turn, verdict = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local callback = call('HMGET', key('callback', name), 'standing', 'turn', 'record', 'received', 'fleeting', 'again')
if callback[1] ~= 'waiting' or number(callback[2]) ~= turn then return {now, {-1, {}}} end
local record, made, dead = callback[3], 0, {}
local fleeting = callback[5] == '1'
if verdict == 'deliver' or verdict == 'more' then
  local gone = fleeting or is_erased(owners(record))
  for at = 9, #ARGV, 6 do
    local standing = insert_delivery(at, 7, record, callback[4], gone, true)
    if standing == 'queued' then made = made + 1 end
    if standing == 'full' then table.insert(dead, ARGV[at + 1]) end
  end
end
if verdict == 'more' then return {now, {made, dead}} end
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
  -- Content that must not be kept is not kept for operators either.
  move_callback(name, record, 'waiting', fleeting and 'known' or 'unowned', now + tonumber(ARGV[5]))
end
return {now, {made, dead}}
