-- ARGV: id. Answers the standing of a delivery or an unowned callback, and {due, name, tenant, account, kind,
-- upstream's id, attempts, received, history}; nothing if there is none.
local function row(standing, name, entry)
  local fields = call('HMGET', entry, 'tenant', 'account', 'kind', 'id', 'attempts', 'received', 'history')
  local row = {call('HGET', entry, 'due') or '', name}
  for field = 1, 7 do
    row[field + 2] = fields[field] or ''
  end
  return {now, {standing, row}}
end

local standing = call('HGET', key('delivery', ARGV[2]), 'standing')
if standing and standing ~= 'known' then return row(standing, ARGV[2], key('delivery', ARGV[2])) end
local name = call('HGET', key('callbacks:short'), ARGV[2])
if name then return row('unowned', name, key('callback', name)) end
return {now, {'', {}}}
