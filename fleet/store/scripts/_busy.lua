-- What an event does that finds its session busy. Put after `_lib.lua` in the scripts whose legend
-- says `With`.
--
-- Keys     fleet:session:, fleet:dispatch:, fleet:orders:, fleet:quiet

-- One turn is made of this many events at most, and of this many bytes of them: as one event's.
local JOINED_MAX, JOINED_BYTES_MAX = 100, 1048576

local INTERRUPTED = 'interrupted by a newer event of its session'

-- End a dispatch now, whatever it does. First the ledger, then the worker: a late result finds a
-- terminal state and is refused. Until its turn is dead it keeps its agent and its session.
local function stop(record, reason, keep_ms)
  local running = record.state == 'active'
  finish(record, 'cancelled', {'error', reason}, {'reason', reason}, keep_ms, running)
  if running then
    local orders = 'fleet:orders:' .. (record.worker or record.agent)
    redis.call('RPUSH', orders, 'stop ' .. record.id)
    redis.call('PEXPIRE', orders, 10000)
  end
end

-- The ids of the agent's live dispatches of a session, newest first.
local function live_ones(session, agent)
  local found = {}
  for _, id in ipairs(redis.call('ZREVRANGE', session_key(session), 0, -1)) do
    if redis.call('HGET', dispatch_key(id), 'agent') == agent then found[#found + 1] = id end
  end
  return found
end

-- Newest first, so that none of them is started by the end of the one before it.
local function interrupt(session, agent, keep_ms)
  for _, id in ipairs(live_ones(session, agent)) do
    stop(read_hash(dispatch_key(id)), INTERRUPTED, keep_ms)
  end
end

-- The dispatch whose turn another event of the session may still become part of: one whose quiet
-- window is open, and after which nothing came that would be overtaken.
local function joinable(session, agent, bytes)
  local last = redis.call('ZREVRANGE', session_key(session), 0, 0)[1]
  if not last then return nil end
  local first = read_hash(dispatch_key(last))
  if first.agent ~= agent or first.state ~= 'queued' or tonumber(first.quiet_ms or 0) <= NOW then
    return nil
  end
  local _, joined = string.gsub(first.joined or '', '%S+', '')
  if joined + 2 > JOINED_MAX or tonumber(first.quiet_bytes) + bytes > JOINED_BYTES_MAX then
    return nil
  end
  return first
end

-- Let the turn of `first` be about this one too, begin again to wait for quiet, and no less urgently.
local function join(first, record, bytes, window_ms, most_ms)
  local quiet = math.min(NOW + window_ms, tonumber(first.accepted_ms) + most_ms)
  local lane = tonumber(record.order) - tonumber(record.seq)
  local order = math.min(tonumber(first.order), lane + tonumber(first.seq))
  redis.call('HSET', dispatch_key(first.id), 'joined',
    (first.joined and first.joined .. ' ' or '') .. record.id,
    'quiet_ms', string.format('%.0f', quiet), 'quiet_bytes', first.quiet_bytes + bytes,
    'order', string.format('%.0f', order))
  redis.call('ZADD', 'fleet:quiet', quiet, first.id)
end
