-- Returns the published lines of a day as one text, which costs the reader a tenth of what thousands of fields do:
-- names and numbers in turn, separated by line feeds. A line that contains a line feed is damaged, and is left out.
-- Making the text takes 2 ms in a large company, so it is kept for the next readers. Publishing a line removes it.
-- KEYS: the lines of the day, `NODE|TEAM|ROUTE` with their numbers; the kept text.
-- ARGV: 'new' for a new text, 'recent' for the kept one; the seconds for which a text is kept; the largest kept text
local known = ARGV[1] == 'recent' and text(KEYS[2])
if known then return known end
local lines, found, count, find = redis.call('HGETALL', KEYS[1]), {}, 0, string.find
for at = 1, #lines, 2 do
  local name, numbers = lines[at], lines[at + 1]
  if not find(name, '\n', 1, true) and not find(numbers, '\n', 1, true) then
    found[count + 1], found[count + 2] = name, numbers
    count = count + 2
  end
end
local made = table.concat(found, '\n')
-- A Redis that is full keeps no text, and answers nevertheless.
if #made <= tonumber(ARGV[3]) then redis.pcall('SET', KEYS[2], made, 'EX', ARGV[2]) end
return made
