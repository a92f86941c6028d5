-- ARGV: the bounds of an outbox (deliveries, bytes); for each delivery its record, the number of its persons, its six
-- fields, the persons. Answers the teams of the dropped deliveries, whose outbox is full.
local at, dropped = 4, {}
while at <= #ARGV do
  local record, persons = ARGV[at], tonumber(ARGV[at + 1])
  local fleeting = is_erased(owners(record))
  if insert_delivery(at + 2, 2, record, now, fleeting, false) == 'full' then
    table.insert(dropped, ARGV[at + 3])
  elseif not fleeting then
    note_persons(at + 8, at + 7 + persons, record)
  end
  at = at + 8 + persons
end
return {now, dropped}
