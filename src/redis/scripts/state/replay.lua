-- ARGV: the kind (`one`, `since`, `dead`), the id or the team, the largest number, the start and the end of the period
-- (no end: now). Answers the number of entries that are sent again.
local what, most = ARGV[2], tonumber(ARGV[4])
local replayed = 0

local function again(id)
  local delivery = call('HMGET', key('delivery', id), 'standing', 'tenant', 'record')
  if not delivery[1] or delivery[1] == 'known' then return end
  call('HSET', key('delivery', id), 'attempts', 0)
  move_delivery(id, delivery[2], delivery[3], delivery[1], 'queued', now)
  replayed = replayed + 1
end

local ends = ARGV[6] ~= '' and ARGV[6] or now
if what == 'one' then
  again(ARGV[3])
  local name = call('HGET', key('callbacks:short'), ARGV[3])
  if name then
    -- The callback waits as long as a new one again; then it is unowned again.
    call('HSET', key('callback', name), 'received', now, 'again', event())
    move_callback(name, call('HGET', key('callback', name), 'record'), 'unowned', 'waiting', now)
    replayed = replayed + 1
  end
elseif what == 'since' then
  for _, standing in ipairs({'dead', 'delivered'}) do
    local list = key('deliveries:' .. standing, ARGV[3])
    local ids = call('ZRANGEBYSCORE', list, ARGV[5], ends, 'LIMIT', 0, most - replayed)
    for _, id in ipairs(ids) do again(id) end
  end
else
  for _, id in ipairs(call('ZRANGEBYSCORE', key('deliveries:dead'), '-inf', ends, 'LIMIT', 0, most)) do again(id) end
end
return {now, {string.format('%.0f', now), replayed}}
