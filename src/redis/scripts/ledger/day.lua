-- The published lines of a day as one text, which costs the reader a tenth of what thousands of fields do.
-- KEYS: the lines of the day, `NODE|TEAM|ROUTE` with their numbers.
-- ARGV: a node; 'own' for its lines, 'others' for those of the other nodes; a team, empty for all
-- Returns `TEAM|ROUTE|NUMBERS` of each line, with line feeds in between.
local lines, node, whose, team = redis.call('HGETALL', KEYS[1]), ARGV[1], ARGV[2], ARGV[3]
local found = {}
for at = 1, #lines, 2 do
  local name = lines[at]
  local bar = string.find(name, '|', 1, true)
  if bar and (string.sub(name, 1, bar - 1) == node) == (whose == 'own') then
    local line = string.sub(name, bar + 1)
    if team == '' or string.sub(line, 1, #team + 1) == team .. '|' then
      found[#found + 1] = line .. '|' .. lines[at + 1]
    end
  end
end
return table.concat(found, '\n')
