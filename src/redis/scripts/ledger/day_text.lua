-- Returns the lines of a day as one text, which costs the reader a tenth of what thousands of fields do: names and
-- numbers in turn, separated by line feeds. A line that contains a line feed is damaged, and is left out.
local function day_text(key)
  local lines, found, count, find = redis.call('HGETALL', key), {}, 0, string.find
  for at = 1, #lines, 2 do
    local name, numbers = lines[at], lines[at + 1]
    if not find(name, '\n', 1, true) and not find(numbers, '\n', 1, true) then
      found[count + 1], found[count + 2] = name, numbers
      count = count + 2
    end
  end
  return table.concat(found, '\n')
end

-- Keeps the text of a day for the next readers. A Redis that is full keeps no text, and the script goes on.
local function keep_text(key, made, largest, seconds)
  if #made <= tonumber(largest) then redis.pcall('SET', key, made, 'EX', seconds) end
end
