-- ARGV: the lease, the bytes after which the hand-out ends, the largest number of expired leases per team, then teams
-- and their wanted numbers. Answers the fencing token, the team at which the bytes were used up (-1: none), and {id,
-- tenant, account, kind, content, attempts, received} of each delivery.
local rows, bytes, turn = {}, 0, 0
for at = 5, #ARGV, 2 do
  local tenant = ARGV[at]
  local ready, held = key('ready', tenant), key('held', tenant)
  for _, id in ipairs(due_in(held, tonumber(ARGV[4]))) do
    call('ZREM', held, id)
    call('ZADD', ready, number(call('HGET', key('delivery', id), 'due')), id)
  end
  for _, id in ipairs(due_in(ready, tonumber(ARGV[at + 1]))) do
    if bytes >= tonumber(ARGV[3]) then return {now, {turn, (at - 5) / 2, rows}} end
    if turn == 0 then turn = event() end
    local delivery = call('HMGET', key('delivery', id), 'account', 'kind', 'content', 'attempts', 'received')
    call('ZREM', ready, id)
    if delivery[3] then
      call('ZADD', held, now + tonumber(ARGV[2]), id)
      call('HSET', key('delivery', id), 'turn', turn)
      bytes = bytes + #delivery[3]
      table.insert(rows, {id, tenant, delivery[1], delivery[2], delivery[3], delivery[4], delivery[5]})
    end
  end
end
return {now, {turn, -1, rows}}
