-- Answers the number of waiting callbacks, the number of unowned ones, the receipt of the oldest queued delivery, and
-- {tenant, queued, bytes of those, dead} of each team with deliveries.
local rows = {}
for _, tenant in ipairs(call('SMEMBERS', key('tenants'))) do
  local queued = call('ZCARD', key('deliveries:queued', tenant))
  local dead = call('ZCARD', key('deliveries:dead', tenant))
  if queued + dead > 0 then
    local bytes = math.max(0, number(call('HGET', key('outbox:bytes'), tenant)))
    table.insert(rows, {tenant, tostring(queued), string.format('%.0f', bytes), tostring(dead)})
  elseif call('EXISTS', key('deliveries:delivered', tenant)) == 0 then
    call('SREM', key('tenants'), tenant)
  end
end
local waiting = call('ZCARD', key('callbacks:waiting')) + call('ZCARD', key('callbacks:holding'))
local oldest = call('ZRANGE', key('deliveries:received'), 0, 0, 'WITHSCORES')
return {now, {waiting, call('ZCARD', key('callbacks:unowned')), oldest[2] or '', rows}}
