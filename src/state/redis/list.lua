-- ARGV: the list, its team, the time and the id that it goes on after, how many at the most. Answers {due, id, tenant,
-- account, kind, upstream's id, attempts, received} of each.
local list = key(ARGV[3], ARGV[4] ~= '' and ARGV[4] or nil)
local entries = ARGV[3] == 'callbacks:unowned' and 'callback' or 'delivery'
local first = 0
if ARGV[5] ~= '' then
  -- Where it would stand that comes right after: behind all names that begin so.
  local after = ARGV[6] .. string.rep('\255', 17)
  call('ZADD', list, ARGV[5], after)
  first = call('ZRANK', list, after)
  call('ZREM', list, after)
end
local rows = {}
local found = call('ZRANGE', list, first, first + tonumber(ARGV[7]) - 1, 'WITHSCORES')
for at = 1, #found, 2 do
  local entry = call('HMGET', key(entries, found[at]), 'tenant', 'account', 'kind', 'id', 'attempts', 'received')
  local row = {string.format('%.0f', tonumber(found[at + 1])), found[at]}
  for field = 1, 6 do
    row[field + 2] = entry[field] or ''
  end
  table.insert(rows, row)
end
return {now, rows}
