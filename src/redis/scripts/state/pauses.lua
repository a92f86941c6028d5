-- Answers {endpoint, reason, since, time of the next probe} of each pause.
local rows, fields = {}, call('HGETALL', key('pauses'))
for at = 1, #fields, 2 do
  local pause = cmsgpack.unpack(fields[at + 1])
  local probe = pause.probe and string.format('%.0f', pause.probe) or ''
  table.insert(rows, {fields[at], pause.reason, string.format('%.0f', pause.since), probe})
end
return {now, rows}
