-- ARGV: person, 1 for the first step of the erasure, the largest number of entries to change. Answers the numbers of
-- owners, callbacks, deliveries and answers whose content was removed, and 1 if more steps are needed. A record may be
-- the name of an idempotency key.
local person, most = ARGV[2], tonumber(ARGV[4])
-- This comes first, so that nothing of the person is stored while the rest is removed.
if ARGV[3] == '1' then call('ZADD', key('erased'), now, person) end
local records = key('records', person)
local counts, work = {0, 0, 0, 0}, 0
while work < most do
  local record = call('SRANDMEMBER', records)
  if not record then break end
  work = work + 1
  for tenant, owner in pairs(owners(record)) do
    work = work + 1
    if not owner.erased or owner.reference ~= '' then
      owner.erased, owner.reference = true, ''
      set_owner(record, tenant, owner)
      counts[1] = counts[1] + 1
    end
    -- One reference of each team goes on waiting, without its text; the others would be deliveries that can't be
    -- distinguished.
    local awaiting = key('awaiting', record .. tenant)
    local names = call('HKEYS', awaiting)
    if #names > 0 then
      call('DEL', awaiting)
      call('HSET', awaiting, names[1], '')
    end
  end
  local claim = key('claim', record)
  if call('HDEL', claim, 'content') == 1 then
    call('HSET', claim, 'standing', 'erased')
    counts[4] = counts[4] + 1
  end
  local of = key('callbacks:of', record)
  for _, name in ipairs(call('ZRANGE', of, 0, most - 1)) do
    work = work + 1
    local callback = call('HMGET', key('callback', name), 'standing', 'due')
    call('ZREM', of, name)
    if callback[1] then
      if callback[1] ~= 'kept' then counts[2] = counts[2] + 1 end
      -- The name stays, so that a repeat is recognised.
      move_callback(name, record, callback[1], 'known', callback[2])
    end
  end
  for _, id in ipairs(call('SRANDMEMBER', key('deliveries:of', record), most)) do
    work = work + 1
    local delivery = call('HMGET', key('delivery', id), 'standing', 'due', 'tenant')
    call('SREM', key('deliveries:of', record), id)
    if delivery[1] then
      move_delivery(id, delivery[3], record, delivery[1], 'known', delivery[2])
      counts[3] = counts[3] + 1
    end
  end
  if call('EXISTS', of, key('deliveries:of', record)) == 0 then
    call('SREM', records, record)
    call('ZREM', key('persons'), person .. record)
  end
end
return {now, {counts[1], counts[2], counts[3], counts[4], call('EXISTS', records)}}
