-- ARGV: of each delivery its record, how many persons it has, itself in six, the persons. Answers how many it made.
local at, made = 2, 0
while at <= #ARGV do
  local record, persons = ARGV[at], tonumber(ARGV[at + 1])
  local fleeting = is_erased(owners(record))
  made = made + insert_delivery(at + 2, record, now, fleeting)
  if not fleeting then note_persons(at + 8, at + 7 + persons, record) end
  at = at + 8 + persons
end
return {now, made}
