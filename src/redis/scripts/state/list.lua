-- ARGV: the list, its team, time and id of the last entry before the page, the largest number of entries. Answers {due,
-- id, tenant, account, kind, upstream's id, attempts, received, history} of each.
local list = key(ARGV[2], ARGV[3] ~= '' and ARGV[3] or nil)
local entries = ARGV[2] == 'callbacks:unowned' and 'callback' or 'delivery'
local first = 0
if ARGV[4] ~= '' then
  -- The marker sorts after all names with this prefix, so the page begins behind it.
  local after = ARGV[5] .. string.rep('\255', 17)
  call('ZADD', list, ARGV[4], after)
  first = call('ZRANK', list, after)
  call('ZREM', list, after)
end
local rows = {}
local found = call('ZRANGE', list, first, first + tonumber(ARGV[6]) - 1, 'WITHSCORES')
for at = 1, #found, 2 do
  local entry = call('HMGET', key(entries, found[at]), 'tenant', 'account', 'kind', 'id', 'attempts', 'received',
    'history')
  local row = {string.format('%.0f', tonumber(found[at + 1])), found[at]}
  for field = 1, 7 do
    row[field + 2] = entry[field] or ''
  end
  table.insert(rows, row)
end
return {now, rows}
