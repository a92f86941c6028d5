-- ARGV: the age from which a delivery is too old, the largest number of deliveries. Turns deliveries that are too old
-- and parked at paused endpoints into dead letters. Answers the team of each.
local dead, most = {}, tonumber(ARGV[3])
for _, name in ipairs(call('SMEMBERS', key('parked'))) do
  if pause_of(name) then
    local parked, tenant = key('parked', name), string.match(name, '^[^:]*')
    local before = '(' .. string.format('%.0f', now - tonumber(ARGV[2]))
    for _, id in ipairs(call('ZRANGEBYSCORE', parked, '-inf', before, 'LIMIT', 0, most - #dead)) do
      call('ZREM', parked, id)
      local delivery = call('HMGET', key('delivery', id), 'standing', 'record', 'fleeting')
      if delivery[1] == 'queued' then
        move_delivery(id, tenant, delivery[2], 'queued', delivery[3] == '1' and 'known' or 'dead', now)
        table.insert(dead, tenant)
      end
    end
  end
end
return {now, dead}
