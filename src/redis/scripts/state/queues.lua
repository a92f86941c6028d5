-- Answers how many callbacks wait, how many are unowned, when the oldest queued delivery came in, and {tenant, queued,
-- dead} of each team that has any.
local rows = {}
for _, tenant in ipairs(call('SMEMBERS', key('tenants'))) do
  local queued = call('ZCARD', key('deliveries:queued', tenant))
  local dead = call('ZCARD', key('deliveries:dead', tenant))
  if queued + dead > 0 then
    table.insert(rows, {tenant, tostring(queued), tostring(dead)})
  elseif call('EXISTS', key('deliveries:delivered', tenant)) == 0 then
    call('SREM', key('tenants'), tenant)
  end
end
local waiting = call('ZCARD', key('callbacks:waiting')) + call('ZCARD', key('callbacks:holding'))
local oldest = call('ZRANGE', key('deliveries:received'), 0, 0, 'WITHSCORES')
return {now, {waiting, call('ZCARD', key('callbacks:unowned')), oldest[2] or '', rows}}
