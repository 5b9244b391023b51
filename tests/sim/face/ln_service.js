// What a program made with ln-service does on an LND: node ln_service.js SOCKET CERT MACAROON PEER_SOCKET PEER_CERT PEER_MACAROON
// Prints what it saw as one JSON object.
const crypto = require('crypto');
const lns = require('ln-service');

const [socket, cert, macaroon, peerSocket, peerCert, peerMacaroon] = process.argv.slice(2);
const {lnd} = lns.authenticatedLndGrpc({socket, cert, macaroon});
const peer = lns.authenticatedLndGrpc({socket: peerSocket, cert: peerCert, macaroon: peerMacaroon}).lnd;

const said = async call => {
  try {
    await call();
    return 'no error';
  } catch (error) {
    return Array.isArray(error) ? error.slice(0, 2) : String(error);
  }
};

const main = async () => {
  const saw = {};
  const us = await lns.getWalletInfo({lnd});
  const them = await lns.getWalletInfo({lnd: peer});
  saw.info = [us.alias, us.chains.length, us.is_synced_to_chain, us.active_channels_count, us.peers_count];
  saw.version = (await lns.getWalletVersion({lnd})).version;
  saw.peers = (await lns.getPeers({lnd})).peers.length;
  const graph = await lns.getNetworkGraph({lnd});
  saw.graph = [graph.nodes.length, graph.channels.length, graph.channels[0].policies.length];
  const network = await lns.getNetworkInfo({lnd});
  saw.network = [network.channel_count, network.node_count];
  saw.node = (await lns.getNode({lnd, public_key: them.public_key})).channels.length;
  const {channels} = await lns.getChannels({lnd});
  saw.channels = channels.map(n => [n.is_active, n.is_private, n.capacity, n.local_reserve, n.type]);
  saw.channel = (await lns.getChannel({lnd, id: channels[0].id})).policies.length;
  saw.fees = (await lns.getFeeRates({lnd})).channels.map(n => [n.base_fee, n.fee_rate]);
  saw.balance = (await lns.getChannelBalance({lnd})).channel_balance;
  saw.coins = (await lns.getChainBalance({lnd})).chain_balance;
  saw.pending = (await lns.getPendingChannels({lnd})).pending_channels.length;
  saw.closed = (await lns.getClosedChannels({lnd})).channels.length;
  saw.address = (await lns.createChainAddress({lnd, format: 'p2wpkh'})).address.slice(0, 6);

  const invoice = await lns.createInvoice({lnd: peer, tokens: 12, description: 'tea'});
  const decoded = await lns.decodePaymentRequest({lnd, request: invoice.request});
  saw.decoded = [decoded.tokens, decoded.description, decoded.destination === them.public_key];
  const paid = await lns.pay({lnd, request: invoice.request, max_fee: 10});
  saw.paid = [paid.is_confirmed, paid.tokens, paid.fee, paid.hops.length];
  saw.again = await said(() => lns.pay({lnd, request: invoice.request, max_fee: 10}));
  const read = await lns.getInvoice({lnd: peer, id: invoice.id});
  saw.invoice = [read.is_confirmed, read.received, read.payments.length];
  saw.invoices = (await lns.getInvoices({lnd: peer})).invoices.length;

  const preimage = crypto.randomBytes(32);
  const keysend = await lns.payViaPaymentDetails({
    lnd,
    destination: them.public_key,
    id: crypto.createHash('sha256').update(preimage).digest('hex'),
    max_fee: 10,
    messages: [{type: '5482373484', value: preimage.toString('hex')}, {type: '400000', value: '68656c6c6f'}],
    tokens: 5,
  });
  saw.keysend = [keysend.tokens, keysend.fee];

  const secret = crypto.randomBytes(32);
  const id = crypto.createHash('sha256').update(secret).digest('hex');
  const hold = await lns.createHodlInvoice({lnd: peer, id, tokens: 7});
  const held = new Promise((resolve, reject) => {
    const sub = lns.subscribeToInvoice({lnd: peer, id});
    sub.on('invoice_updated', n => n.is_held && resolve());
    sub.on('error', reject);
  });
  const paying = lns.pay({lnd, request: hold.request, max_fee: 10});
  await held;
  saw.early = await said(() => lns.settleHodlInvoice({lnd: peer, secret: '00'.repeat(32)}));
  await lns.settleHodlInvoice({lnd: peer, secret: secret.toString('hex')});
  saw.hold = (await paying).secret === secret.toString('hex');
  const unpaid = await lns.createHodlInvoice({lnd: peer, id: '11'.repeat(32), tokens: 7});
  await lns.cancelHodlInvoice({lnd: peer, id: unpaid.id});
  saw.canceled = (await lns.getInvoice({lnd: peer, id: unpaid.id})).is_canceled;

  const {route} = await lns.getRouteToDestination({lnd, destination: them.public_key, tokens: 9});
  saw.route = [route.hops.length, route.fee, route.tokens];
  const other = crypto.randomBytes(32);
  route.messages = [{type: '5482373484', value: other.toString('hex')}];
  const routed = await lns.payViaRoutes({
    lnd, id: crypto.createHash('sha256').update(other).digest('hex'), routes: [route],
  });
  saw.routed = routed.secret === other.toString('hex');
  saw.payments = (await lns.getPayments({lnd})).payments.length;
  saw.forwards = (await lns.getForwardingReputations({lnd})).nodes.length > 0;
  await lns.deleteForwardingReputations({lnd});
  saw.forgotten = (await lns.getForwardingReputations({lnd})).nodes.length;

  const granted = await lns.grantAccess({lnd, is_ok_to_get_wallet_info: true});
  const small = lns.authenticatedLndGrpc({socket, cert, macaroon: granted.macaroon}).lnd;
  saw.small = [(await lns.getWalletInfo({lnd: small})).alias, await said(() => lns.getInvoices({lnd: small}))];
  const {signature} = await lns.signMessage({lnd, message: 'hello'});
  saw.signed = (await lns.verifyMessage({lnd: peer, message: 'hello', signature})).signed_by === us.public_key;
  console.log(JSON.stringify(saw));
  process.exit(0);
};

main().catch(error => {
  console.error(error);
  process.exit(1);
});
