-- ARGV: id, the fencing token, outcome (`delivered`, `dead`, `retry`, `untried`), failed attempts, the time of the next
-- attempt. Answers 1 if the outcome was stored.
local id, fate = ARGV[2], ARGV[4]
local name = key('delivery', id)
local delivery = call('HMGET', name, 'standing', 'turn', 'tenant', 'record', 'fleeting', 'due')
if delivery[1] ~= 'queued' then return {now, 0} end
-- The lease ended and another claimant has the delivery: its outcome counts, unless the team has received it already.
if delivery[2] ~= ARGV[3] and fate ~= 'delivered' then return {now, 0} end
local tenant, record = delivery[3], delivery[4]
call('ZREM', key('held', tenant), id)
if fate == 'untried' then
  call('ZADD', key('ready', tenant), delivery[6], id)
  return {now, 1}
end
call('HSET', name, 'attempts', ARGV[5])
if fate == 'retry' then
  call('ZREM', key('ready', tenant), id)
  move_delivery(id, tenant, record, 'queued', 'queued', ARGV[6])
else
  move_delivery(id, tenant, record, 'queued', delivery[5] == '1' and 'known' or fate, now)
end
return {now, 1}
