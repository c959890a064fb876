-- Compare what a machine remembers of this store with the store, and stop the intake of one that went back:
-- one that was emptied, or restored from a backup.
--
-- ARGV
--   epoch     the life that it remembers, or '' when it remembers nothing
--   seq       newest acceptance
--   bus       newest entry of the bus, or ''
--   alive_ms  when the store was looked at last
--   fences    agent -> newest fencing token (JSON)
--   lost_ms   most of its last time that a store may lose without a stop: a replica that is promoted
--             has not all of its primary's writes, nor has a server after a power loss
-- Keys     fleet:epoch, fleet:seq, fleet:bus, fleet:alive, fleet:fences, fleet:lost, fleet:former,
--          fleet:alerted:
-- Returns  JSON: `lost`, why nothing is accepted, or ''; and `epoch`, `seq`, `bus`, `alive_ms`, `fences`
--          to remember
-- Invariants
--   A number that was given is given to nobody else: sequence and tokens go on above what is remembered.
--   A store that went back gets a new epoch, so that every follower of the bus begins anew; the former one
--   is kept, so that each machine that remembers it finds the same.
--   A store that nobody remembers is a new one.

local function is_before(one, other)
  local ms, n = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_n = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) < tonumber(other_ms) end
  return tonumber(n) < tonumber(other_n)
end

local seq = tonumber(redis.call('GET', 'fleet:seq') or 0)
local alive_ms = tonumber(redis.call('GET', 'fleet:alive') or 0)
local last = redis.call('XREVRANGE', 'fleet:bus', '+', '-', 'COUNT', 1)[1]
local bus = last and last[1] or '0-0'

-- Why it seems that the store went back, and about how much (ms) of its last time is missing.
local function went_back()
  if ARG.epoch ~= epoch() then return 'it was emptied, or another one has its address', math.huge end
  local missing = tonumber(ARG.alive_ms) - alive_ms
  if missing > 0 then
    return 'it misses at least its last ' .. math.ceil(missing / 1000) .. ' s', missing
  end
  if seq < tonumber(ARG.seq) then
    return 'it misses ' .. (tonumber(ARG.seq) - seq) .. ' acceptances', math.huge
  end
  if ARG.bus ~= '' and is_before(bus, ARG.bus) then
    return 'its bus ends before an entry that it had', math.huge
  end
  return nil, 0
end

local function go_above()
  if seq < tonumber(ARG.seq) then
    seq = tonumber(ARG.seq)
    redis.call('SET', 'fleet:seq', string.format('%.0f', seq))
  end
  for agent, token in pairs(cjson.decode(ARG.fences)) do
    if tonumber(redis.call('HGET', 'fleet:fences', agent) or 0) < tonumber(token) then
      redis.call('HSET', 'fleet:fences', agent, token)
    end
  end
end

-- A machine that remembers nothing writes nothing: another one may.
local knows = ARG.epoch ~= '' and redis.call('HEXISTS', 'fleet:former', ARG.epoch) == 0
if knows then
  local why, missing = went_back()
  if why then go_above() end
  if missing > tonumber(ARG.lost_ms) then
    redis.call('HSET', 'fleet:former', ARG.epoch, NOW, epoch(), NOW)
    redis.call('SET', 'fleet:epoch', string.sub(redis.sha1hex(epoch() .. NOW), 1, 16))
    known_epoch = nil
    redis.call('HSET', 'fleet:lost', 'reason', why, 'since_ms', NOW)
  elseif why then
    alert_once('writes_lost', '', 'the store has lost writes: ' .. why)
  end
end
if ARG.epoch ~= '' or alive_ms == 0 then
  alive_ms = math.max(alive_ms, NOW)
  redis.call('SET', 'fleet:alive', string.format('%.0f', alive_ms))
end

local fences = {}
for place, value in ipairs(redis.call('HGETALL', 'fleet:fences')) do fences[place] = value end
return cjson.encode({
  lost = redis.call('HGET', 'fleet:lost', 'reason') or '',
  epoch = epoch(),
  seq = seq,
  bus = bus,
  alive_ms = alive_ms,
  fences = fences,
})
