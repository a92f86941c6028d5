-- The published lines of a day as one text, which costs the reader a tenth of what thousands of fields do.
-- KEYS: the lines of the day, `NODE|TEAM|ROUTE` with their numbers.
-- ARGV: a node; 'own' for its lines, 'others' for those of the other nodes; a team, empty for all
-- Returns names and numbers in turn, separated by line feeds. A line that contains a line feed is damaged, and is left
-- out. The script makes no text except the result, so that Redis is soon free again.
local lines, mark, is_own, team = redis.call('HGETALL', KEYS[1]), ARGV[1] .. '|', ARGV[2] == 'own', '|' .. ARGV[3] .. '|'
local found, count, sub, find = {}, 0, string.sub, string.find
for at = 1, #lines, 2 do
  local name = lines[at]
  if (sub(name, 1, #mark) == mark) == is_own and (team == '||' or find(name, team, 1, true)) then
    local numbers = lines[at + 1]
    if not find(name, '\n', 1, true) and not find(numbers, '\n', 1, true) then
      found[count + 1], found[count + 2] = name, numbers
      count = count + 2
    end
  end
end
return table.concat(found, '\n')
