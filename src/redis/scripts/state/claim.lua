-- ARGV: the lease, the bytes after which the hand-out ends, the largest number of expired leases per team, the time
-- between two probes, then teams and their wanted numbers. Answers the fencing token, the team at which the bytes were
-- used up (-1: none), and {id, tenant, account, kind, content, attempts, received, probes, history, `1` for a probe} of
-- each delivery.
local rows, bytes, turn = {}, 0, 0
local most = tonumber(ARGV[4])

local function hand_out(id, tenant, probe)
  if turn == 0 then turn = event() end
  local delivery = call('HMGET', key('delivery', id), 'account', 'kind', 'content', 'attempts', 'received', 'probes',
    'history')
  call('ZREM', key('ready', tenant), id)
  if not delivery[3] then return end
  call('ZADD', key('held', tenant), now + tonumber(ARGV[2]), id)
  call('HSET', key('delivery', id), 'turn', turn)
  bytes = bytes + #delivery[3]
  table.insert(rows, {id, tenant, delivery[1], delivery[2], delivery[3], delivery[4], delivery[5], delivery[6] or '0',
    delivery[7] or '', probe and '1' or ''})
end

-- Pauses by endpoint, and the teams that have one.
local pauses, has_pause, wants = {}, {}, {}
for at = 6, #ARGV, 2 do wants[ARGV[at]] = true end
local fields = call('HGETALL', key('pauses'))
for at = 1, #fields, 2 do
  pauses[fields[at]] = cmsgpack.unpack(fields[at + 1])
  has_pause[string.match(fields[at], '^[^:]*')] = true
end

-- Parked deliveries become ready again once their endpoint is not paused.
for _, name in ipairs(call('SMEMBERS', key('parked'))) do
  if not pauses[name] then
    local parked, tenant = key('parked', name), string.match(name, '^[^:]*')
    for _, id in ipairs(call('ZRANGE', parked, 0, most - 1)) do
      call('ZREM', parked, id)
      local due = call('HGET', key('delivery', id), 'due')
      if due then call('ZADD', key('ready', tenant), due, id) end
    end
    if call('EXISTS', parked) == 0 then call('SREM', key('parked'), name) end
  end
end

-- A probe is the oldest delivery to the endpoint, whenever it is due.
for name, pause in pairs(pauses) do
  local tenant = string.match(name, '^[^:]*')
  if pause.probe and pause.probe <= now and wants[tenant] then
    for _, id in ipairs(call('ZRANGE', key('age', name), 0, most - 1)) do
      if not call('ZSCORE', key('held', tenant), id) then
        call('ZREM', key('parked', name), id)
        hand_out(id, tenant, true)
        pause.probe = now + tonumber(ARGV[5])
        set_pause(name, pause)
        break
      end
    end
  end
end

for at = 6, #ARGV, 2 do
  local tenant, left = ARGV[at], tonumber(ARGV[at + 1])
  local ready, held = key('ready', tenant), key('held', tenant)
  for _, id in ipairs(due_in(held, most)) do
    call('ZREM', held, id)
    call('ZADD', ready, number(call('HGET', key('delivery', id), 'due')), id)
  end
  for _, id in ipairs(due_in(ready, has_pause[tenant] and left + most or left)) do
    if left == 0 then break end
    if bytes >= tonumber(ARGV[3]) then return {now, {turn, (at - 6) / 2, rows}} end
    local name = nil
    if has_pause[tenant] then
      local of = call('HMGET', key('delivery', id), 'kind', 'queued')
      name = endpoint(tenant, of[1] or '')
      if pauses[name] then
        call('ZREM', ready, id)
        call('ZADD', key('parked', name), of[2] or now, id)
        call('SADD', key('parked'), name)
      end
    end
    if not (name and pauses[name]) then
      hand_out(id, tenant, false)
      left = left - 1
    end
  end
end
return {now, {turn, -1, rows}}
