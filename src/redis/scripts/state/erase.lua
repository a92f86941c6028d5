-- ARGV: person, whether this is the first part of it, how much to touch at the most. Answers how many owners, callbacks
-- and deliveries lost what they said, and whether there is more to do.
local person, most = ARGV[2], tonumber(ARGV[4])
-- First, so that nothing of the person is stored while the rest is removed.
if ARGV[3] == '1' then call('ZADD', key('erased'), now, person) end
local records = key('records', person)
local counts, work = {0, 0, 0}, 0
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
    -- One goes on waiting, without its reference; the others would be deliveries that nobody can tell apart.
    local awaiting = key('awaiting', record .. tenant)
    local names = call('HKEYS', awaiting)
    if #names > 0 then
      call('DEL', awaiting)
      call('HSET', awaiting, names[1], '')
    end
  end
  local of = key('callbacks:of', record)
  for _, name in ipairs(call('ZRANGE', of, 0, most - 1)) do
    work = work + 1
    local callback = call('HMGET', key('callback', name), 'standing', 'due')
    call('ZREM', of, name)
    if callback[1] then
      if callback[1] ~= 'kept' then counts[2] = counts[2] + 1 end
      -- Its name stays, so that a repeat is known for one.
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
return {now, {counts[1], counts[2], counts[3], call('EXISTS', records)}}
