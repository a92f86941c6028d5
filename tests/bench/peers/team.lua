-- The nginx-lua peer's request path: admit a team, answer a bank request from shared memory.
local json = require "cjson.safe"
local answers, limits, counts = ngx.shared.answers, ngx.shared.limits, ngx.shared.counts

local team = {}

-- Admits the team of this request if it is within its limit, and counts it; otherwise the request ends here.
function team.admit()
  local name = ngx.var.team
  if name == "" then return ngx.exit(401) end
  local this_second = limits:incr(name .. ":" .. ngx.time(), 1, 0, 2)
  if this_second and this_second > 1000000 then return ngx.exit(429) end
  counts:incr(name, 1, 0)
  return name
end

-- Returns all members except reference_id, by name, each with its type: the parts that decide the answer.
local function question(asked)
  local names = {}
  for name in pairs(asked) do
    if name ~= "reference_id" then names[#names + 1] = name end
  end
  table.sort(names)
  local parts = {}
  for at, name in ipairs(names) do
    local value = asked[name]
    parts[at] = name .. "=" .. type(value) .. ":" .. tostring(value)
  end
  return ngx.md5_bin(table.concat(parts, "\0"))
end

-- Answers a bank request from memory with the caller's own reference_id, or from Iluma.
function team.bank()
  team.admit()
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  local asked = body and json.decode(body)
  if type(asked) ~= "table" then return ngx.exit(400) end
  local key = question(asked)
  local answer = answers:get(key)
  if not answer then
    local reply = ngx.location.capture("/ask-iluma", { method = ngx.HTTP_POST, body = body })
    if reply.status ~= 200 then
      ngx.status = reply.status
      return ngx.print(reply.body)
    end
    -- A NUL marks the place of the reference: JSON never contains one.
    answer = ngx.re.sub(reply.body, [["reference_id":"[^"]*"]], [["reference_id":]] .. "\0")
    answers:set(key, answer, 3600)
  end
  local mark = answer:find("\0", 1, true)
  local reference = json.encode(asked.reference_id)
  ngx.header["Content-Length"] = #answer - 1 + #reference
  ngx.print(answer:sub(1, mark - 1), reference, answer:sub(mark + 1))
end

return team
