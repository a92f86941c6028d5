-- Lists entries of a log, oldest first, or newest first.
-- KEYS: ids in order, hash of entries. ARGV: lower and upper bound as ZRANGEBYLEX takes them, the largest number, 1 for
-- the newest first. Answers id and text of each entry.
local ids
if ARGV[4] == '1' then
  ids = redis.call('ZREVRANGEBYLEX', KEYS[1], ARGV[2], ARGV[1], 'LIMIT', 0, ARGV[3])
else
  ids = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
end
local found = {}
for _, id in ipairs(ids) do
  local text = redis.call('HGET', KEYS[2], id)
  if text then
    table.insert(found, id)
    table.insert(found, text)
  end
end
return found
