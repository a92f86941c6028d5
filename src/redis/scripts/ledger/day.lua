-- Returns the text of a day. Making it takes 2 ms in a large company, so it is kept for the next readers.
-- KEYS: the lines of the day, `NODE|TEAM|ROUTE` with their numbers; the kept text.
-- ARGV: 'new' for a new text, 'recent' for the kept one; the seconds for which a text is kept; the largest kept text
local known = ARGV[1] == 'recent' and text(KEYS[2])
if known then return known end
local made = day_text(KEYS[1])
keep_text(KEYS[2], made, ARGV[3], ARGV[2])
return made
