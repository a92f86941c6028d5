-- ARGV: record. Answers {tenant, reference, since} of each owner.
local rows = {}
for tenant, owner in pairs(owners(ARGV[2])) do
  table.insert(rows, {tenant, owner.reference, string.format('%.0f', owner.since)})
end
return {now, rows}
