-- ARGV: the kind (`one`, `since`, `dead`), the team (empty: all), the largest number, the start and the end of the
-- period (no end: now), the id. Answers the end of the period, now at the latest, and the number of entries that are
-- sent again.
local what, most = ARGV[2], tonumber(ARGV[4])
local replayed = 0
local team = ARGV[3] ~= '' and ARGV[3] or nil

local function again(id)
  local delivery = call('HMGET', key('delivery', id), 'standing', 'tenant', 'record')
  if not delivery[1] or delivery[1] == 'known' then return end
  if team and delivery[2] ~= team then return end
  call('HSET', key('delivery', id), 'attempts', 0, 'probes', 0, 'queued', now)
  move_delivery(id, delivery[2], delivery[3], delivery[1], 'queued', now)
  replayed = replayed + 1
end

local ends = ARGV[6] ~= '' and math.min(tonumber(ARGV[6]), now) or now
if what == 'one' then
  again(ARGV[7])
  local name = not team and call('HGET', key('callbacks:short'), ARGV[7])
  if name then
    -- The callback waits as long as a new one again; then it is unowned again.
    call('HSET', key('callback', name), 'received', now, 'again', event())
    move_callback(name, call('HGET', key('callback', name), 'record'), 'unowned', 'waiting', now)
    replayed = replayed + 1
  end
elseif what == 'since' then
  for _, standing in ipairs({'dead', 'delivered'}) do
    local list = key('deliveries:' .. standing, team)
    local ids = call('ZRANGEBYSCORE', list, ARGV[5], string.format('%.0f', ends), 'LIMIT', 0, most - replayed)
    for _, id in ipairs(ids) do again(id) end
  end
else
  local ids = call('ZRANGEBYSCORE', key('deliveries:dead', team), '-inf', string.format('%.0f', ends), 'LIMIT', 0, most)
  for _, id in ipairs(ids) do again(id) end
end
return {now, {string.format('%.0f', ends), replayed}}
