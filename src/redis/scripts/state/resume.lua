-- ARGV: the kind of pauses (`any`, `automatic`), endpoints. Answers the number of endpoints that had such a pause.
local resumed = 0
for at = 3, #ARGV do
  local pause = pause_of(ARGV[at])
  if pause and (ARGV[2] == 'any' or pause.reason == 'gone' or pause.reason == 'failing') then
    call('HDEL', key('pauses'), ARGV[at])
    resumed = resumed + 1
  end
  call('HDEL', key('failing'), ARGV[at])
end
return {now, resumed}
