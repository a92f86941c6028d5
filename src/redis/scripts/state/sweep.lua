-- ARGV: the list, the age at which its entries are removed, the largest number. Answers the number of removed ones.
local list, before = ARGV[2], now - tonumber(ARGV[3])
local names = call('ZRANGEBYSCORE', key(list), '-inf', '(' .. string.format('%.0f', before), 'LIMIT', 0, ARGV[4])
local kind, standing = string.match(list, '^(%a+):(%a+)$')
for _, name in ipairs(names) do
  if kind == 'deliveries' then
    local delivery = call('HMGET', key('delivery', name), 'tenant', 'record')
    if delivery[1] then move_delivery(name, delivery[1], delivery[2], standing, 'gone') end
    call('ZREM', key(list), name)
  elseif kind == 'callbacks' then
    local callback = call('HMGET', key('callback', name), 'record', 'due')
    -- Late owners can't follow any more, but repeats can.
    if callback[1] then
      move_callback(name, callback[1], standing, standing == 'kept' and 'known' or 'gone', callback[2])
    end
    call('ZREM', key(list), name)
  elseif list == 'owners' then
    local record, tenant = string.sub(name, 1, 32), string.sub(name, 33)
    local of = key('owners', record)
    call('DEL', key('awaiting', record .. tenant))
    call('HDEL', of, tenant)
    if call('HLEN', of) == call('HEXISTS', of, TOUCHED) then call('DEL', of) end
    call('ZREM', key(list), name)
  elseif list == 'claims' then
    call('DEL', key('claim', name))
    call('ZREM', key(list), name)
  elseif list == 'sessions' then
    forget_session(name)
  elseif list == 'persons' then
    call('SREM', key('records', string.sub(name, 1, 32)), string.sub(name, 33))
    call('ZREM', key(list), name)
  else
    call('ZREM', key(list), name)
  end
end
return {now, #names}
