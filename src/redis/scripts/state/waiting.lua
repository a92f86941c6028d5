-- ARGV: the largest number, the lease, the bytes after which the hand-out ends, the largest number of expired leases.
-- Answers the fencing token, and {name, record, account, kind, content, received} of each callback, followed by
-- {tenant, reference, kind, `1` if erased} of each reference that waits for it.
local waiting, holding = key('callbacks:waiting'), key('callbacks:holding')
for _, name in ipairs(due_in(holding, tonumber(ARGV[5]))) do
  call('ZREM', holding, name)
  call('ZADD', waiting, number(call('HGET', key('callback', name), 'due')), name)
end
local rows, bytes = {}, 0
local names = due_in(waiting, tonumber(ARGV[2]))
local turn = #names > 0 and event() or 0
for _, name in ipairs(names) do
  if bytes >= tonumber(ARGV[4]) then break end
  local callback = call('HMGET', key('callback', name), 'record', 'account', 'kind', 'content', 'received')
  call('ZREM', waiting, name)
  if callback[4] then
    local row = {name, callback[1], callback[2], callback[3], callback[4], callback[5]}
    for tenant, owner in pairs(owners(callback[1])) do
      for _, reference in ipairs(call('HVALS', key('awaiting', callback[1] .. tenant))) do
        for _, field in ipairs({tenant, reference, owner.kind, owner.erased and '1' or ''}) do
          table.insert(row, field)
        end
        bytes = bytes + #reference + 100
      end
    end
    bytes = bytes + #callback[4]
    call('ZADD', holding, now + tonumber(ARGV[3]), name)
    call('HSET', key('callback', name), 'turn', turn)
    table.insert(rows, row)
  end
end
return {now, {turn, rows}}
